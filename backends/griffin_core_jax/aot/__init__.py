"""Compile for TPUs without owning one, and read what the compiler says."""
