"""The engines whose operations another backend has already: thin names over it."""
