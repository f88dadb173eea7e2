"""Offers requests and times them."""
