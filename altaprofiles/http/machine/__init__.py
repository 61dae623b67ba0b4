"""One cap and one pace for all processes of a machine: locked files, and a record beside them."""
