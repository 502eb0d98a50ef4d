"""What people and machines may ask of a running relay over HTTP."""
