"""What a run stores: the study database, the run folder, and warm starts from earlier runs."""
