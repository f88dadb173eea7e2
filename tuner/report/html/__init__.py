"""`report.html`: the results of a run as one page that needs only a browser."""
