"""Effective configs of models of each backend, as the backends' documentation has them."""

from __future__ import annotations

_IO = """\
input [ { name: "X" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""
_CPU = "instance_group [ { name: 'm_0' kind: KIND_CPU count: %d } ]\n"
_GPU = "instance_group [ { name: 'm_0' kind: KIND_GPU count: 1 gpus: [ 0 ] } ]\n"

EFFECTIVE = {
    # ONNX Runtime has two instances on the CPU by default.
    "onnxruntime": f'backend: "onnxruntime"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 8\n{_IO}{_CPU % 2}',
    "onnxruntime gpu": f'backend: "onnxruntime"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 8\n{_IO}{_GPU}',
    "tensorrt": f'backend: "tensorrt"\nplatform: "tensorrt_plan"\nmax_batch_size: 32\n{_IO}{_GPU}',
    "pytorch": f'backend: "pytorch"\nplatform: "pytorch_libtorch"\nmax_batch_size: 8\n{_IO}{_CPU % 1}',
    "pytorch gpu": f'backend: "pytorch"\nplatform: "pytorch_libtorch"\nmax_batch_size: 8\n{_IO}{_GPU}',
    "torch_aoti": f'backend: "pytorch"\nplatform: "torch_aoti"\nmax_batch_size: 0\n{_IO}{_GPU}',
    "openvino": f'backend: "openvino"\nmax_batch_size: 8\n{_IO}{_CPU % 1}',
    "python": f'backend: "python"\nmax_batch_size: 8\n{_IO}{_CPU % 1}',
    "fil": f'backend: "fil"\nmax_batch_size: 32768\n{_IO}{_CPU % 1}',
    "fil gpu": f'backend: "fil"\nmax_batch_size: 32768\n{_IO}{_GPU}',
    "dali": f'backend: "dali"\nmax_batch_size: 64\n{_IO}{_GPU}',
    "tensorflow": f'platform: "tensorflow_savedmodel"\nmax_batch_size: 8\n{_IO}{_CPU % 2}',
    "tensorflow gpu": f'platform: "tensorflow_savedmodel"\nmax_batch_size: 8\n{_IO}{_GPU}',
}
"""The texts, by backend and device."""
