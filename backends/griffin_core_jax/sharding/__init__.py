"""One model over many devices: data, fsdp, tensor and sequence axes of a mesh."""
