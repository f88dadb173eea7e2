"""The search spaces that ship with tritontune, one YAML file each."""
