"""Support for tests of tritontune and its plug-ins. It needs pytest, which tritontune does not install.

A fake Triton
    `installations.fake_installation(folder)` writes a `tritonserver` into a folder: a process like the real one, which
    starts in 0.1 s. It serves gRPC and HTTP, reads real repositories, and follows their configs.

    - In a test: `ProcessLauncher(fake_installation(tmp_path / "triton"))`; here, the fixtures `fake_triton` and
      `fake_launcher` provide one for the whole session.
    - On the command line: `tritontune run REPOSITORY --triton-path FOLDER`, or FOLDER in `PATH`.

    Its models have the backend `python` (each instance in its own process), or the backend `fake`, without code:
    `repositories.known_config(service_us=2000, service_us_per_item=100)` is a config for a model with exactly these
    service times, even on a busy machine. `fake.native` lists all parameters: failing to load, crashing, hanging,
    running out of memory, stalling, slowing down, errors and wrong answers. The control file changes the behaviour of a
    whole server: `installations.control_fake(folder, speed=0.5)`; `fake.runtime` lists the keys.

    It has no GPU, rate limiter, model warm-up, priorities, queue time-outs or CUDA shared memory; of BLS, only `exec`.

Contract suites
    Classes to derive from; the top of each file lists the fixtures that a subclass provides.

    - `launcher_contract.LauncherContract`: a launcher that starts servers; `CandidateContract`: a launcher that loads
      candidates into a running server.
    - `server_contract.AskedContract` and `InferenceContract`: a Triton server over gRPC or HTTP.
    - `engine_contract.LoadEngineContract`: a load engine and its driver.

    Register them with `pytest.register_assert_rewrite` before they are imported.

`repositories` writes model repositories with the Python models in `models/`, and with models of known service times.
"""
