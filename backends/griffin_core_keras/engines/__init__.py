"""The engines: the operations that the layers call, by thin names over the backend that has them."""
