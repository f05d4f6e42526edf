"""The recurrent operations: records of plain XLA loops, and their composition."""
