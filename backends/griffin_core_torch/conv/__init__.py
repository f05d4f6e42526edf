"""The depthwise causal convolution and its kernels."""
