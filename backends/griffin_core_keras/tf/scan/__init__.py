"""The recurrent operations: records of plain loops, and their composition."""
