"""What tests of tritontune, and of plug-ins to it, stand on. It needs pytest, and ships without it.

A fake Triton
    `installations.fake_installation(folder)` makes a `tritonserver` in a folder: a process like the real one, that
    starts in a tenth of a second. It speaks gRPC and HTTP, reads real repositories, and behaves by their configs.

    - In a test: `ProcessLauncher(fake_installation(tmp_path / "triton"))`; here, the fixtures `fake_triton` and
      `fake_launcher` have one for the whole session.
    - On the command line: `tritontune run REPOSITORY --triton-path FOLDER`, or FOLDER in `PATH`.

    Its models are of the backend `python`, as people write them (each instance in a process of its own), or of the
    backend `fake`, without any: `repositories.known_config(service_us=2000, service_us_per_item=100)` is a config for
    a model that takes just that, whatever the machine does meanwhile. `fake.native` tells of all parameters: how it
    fails to load, crashes, hangs, runs out of memory, stalls, gets slower, answers with errors or wrongly. What a whole
    server does on demand is in its control file: `installations.control_fake(folder, speed=0.5)`; `fake.runtime` has
    the keys.

    It has no GPU, rate limiter, model warm-up, priorities, queue time-outs or CUDA shared memory; of BLS, `exec` alone.

Contract suites
    Classes to derive from; what a subclass brings is said at the top of each file.

    - `launcher_contract.LauncherContract`: of a launcher that starts servers; `CandidateContract`: of one that has
      others load candidates.
    - `server_contract.AskedContract` and `InferenceContract`: of a Triton, asked over gRPC or HTTP.
    - `engine_contract.LoadEngineContract`: of a load engine and its driver.

    Register them with `pytest.register_assert_rewrite` before they are imported.

`repositories` writes model repositories of the Python models in `models/`, and of known ones.
"""
