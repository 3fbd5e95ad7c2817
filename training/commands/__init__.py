"""Commands of ``unet-train``, one module each: ``declare`` adds the options, ``run`` does the work."""
