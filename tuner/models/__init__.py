"""The model repository on disk, and the text of a config.pbtxt."""
