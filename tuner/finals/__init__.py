"""The end of a tuning: what looks best is measured again, and certified."""
