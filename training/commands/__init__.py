"""Commands of ``unet-train``, one module each: ``add_parser`` declares the options, ``run`` does the work."""
