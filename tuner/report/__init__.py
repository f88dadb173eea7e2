"""Output for users: the terminal during and after a run, and `report.html`."""
