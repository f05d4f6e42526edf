"""Names, shapes and roles of parameters and of decode states."""
