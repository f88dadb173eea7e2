"""The result files of a run (`front.json`, `trials.csv`, `best/`), and results in words."""
