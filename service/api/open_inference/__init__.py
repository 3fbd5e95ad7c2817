"""The Open Inference Protocol, version 2, over REST, with the extension of binary tensors: KServe's and Triton's."""
