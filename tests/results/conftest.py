from support.study_fixtures import gpu_point, open_point, run, study, verified

__all__ = ["gpu_point", "open_point", "run", "study", "verified"]
