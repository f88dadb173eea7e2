"""Ensembles: models that call other models, each as soon as its inputs are complete."""

from __future__ import annotations

from collections.abc import Callable

from tritonclient.grpc import model_config_pb2 as pb

from tuner.testing.fake.messages import InferRequest, InferResponse, RawTensor, RefusedError


class Ensemble:
    """The steps of an ensemble.

    Args:
        config: The ensemble's config.
        infer: Runs an inference of a model of the server.
    """

    def __init__(self, config: pb.ModelConfig, infer: Callable[[InferRequest], None]) -> None:
        self._steps = list(config.ensemble_scheduling.step)
        self._outputs = [entry.name for entry in config.output]
        self._infer = infer

    def infer(self, request: InferRequest, answer: Callable[[InferRequest, InferResponse], None]) -> None:
        """Run all steps for a request; it gets one response."""
        _Run(self._steps, self._outputs, self._infer, request, answer).advance()


class _Run:
    """One request on its way through the steps."""

    def __init__(
        self,
        steps: list[pb.ModelEnsembling.Step],
        outputs: list[str],
        infer: Callable[[InferRequest], None],
        request: InferRequest,
        answer: Callable[[InferRequest, InferResponse], None],
    ) -> None:
        self._left = list(steps)
        self._outputs = outputs
        self._infer = infer
        self._request = request
        self._answer = answer
        self._tensors: dict[str, RawTensor] = dict(request.inputs)
        self._over = False

    def advance(self) -> None:
        ready = [step for step in self._left if set(step.input_map.values()) <= self._tensors.keys()]
        self._left = [step for step in self._left if step not in ready]
        for step in ready:
            self._take(step)

    def _take(self, step: pb.ModelEnsembling.Step) -> None:
        inputs = {own: self._tensors[name] for own, name in step.input_map.items()}
        inner = InferRequest(
            step.model_name,
            inputs,
            lambda response: self._taken(step, response),
            version="" if step.model_version < 0 else str(step.model_version),
            id=self._request.id,
            sequence=self._request.sequence,
            start=self._request.start,
            end=self._request.end,
        )
        try:
            self._infer(inner)
        except RefusedError as error:
            self._end(InferResponse(error=error))

    def _taken(self, step: pb.ModelEnsembling.Step, response: InferResponse) -> None:
        if response.error:
            self._end(InferResponse(error=response.error))
            return
        for own, name in step.output_map.items():
            if own in response.outputs:
                self._tensors[name] = response.outputs[own]
        if all(name in self._tensors for name in self._outputs):
            self._end(InferResponse({name: self._tensors[name] for name in self._outputs}))
        else:
            self.advance()

    def _end(self, response: InferResponse) -> None:
        if not self._over:
            self._over = True
            self._answer(self._request, response)
