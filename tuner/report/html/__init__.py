"""`report.html`: what a run found, as one page for people that needs nothing but a browser."""
