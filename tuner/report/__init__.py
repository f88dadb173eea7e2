"""What a run says and leaves: the terminal, tables and files."""
