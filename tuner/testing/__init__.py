"""What tests of tritontune and of its plug-ins stand on."""
