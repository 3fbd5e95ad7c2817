"""The commands of ``unet-service``, a module each."""
