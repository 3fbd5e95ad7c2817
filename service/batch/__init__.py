"""Many image files through one segmenter, each exactly once however often the work is broken off.

::

    images        which files, and their names
    patterns      where wildcards lead
    czi           files of Zeiss' microscopes, and what copies of them are made of
    czi_process   Zeiss' library, which may crash
    czi_worker    what runs there
    copies        in OME-TIFF
    readable      files that the service reads: those named, or copies
    ome_zarr      folders that are images
    zarr_metadata what these say of themselves
    zarr_packed   those in one file
    zarr_copy     what copies of them are made of
    zarr_labels   results in the same format
    zarr_grids    where the pixels of these lie
    targets       what each result is called
    shard         which of them are this process's
    segmenters    in this process, or on a server
    ledger        what is finished, in work and failed: the folder of results
    receipts      what each result was made from, and what may be replaced
    described     receipts of results wherever they lie
    files         how they are written so that they are there whole or not at all
    failures      what is listed of it, also by other shards
    locks         that no two processes do the same
    loops         what is left on an event loop
    work          from first to last, going on after a failure
    progress      how far it is, and how long it will take
"""
