"""The errors of ``training``, one tree.

::

    TrainingError
    ├── RecipeError       a recipe that cannot be read or contradicts itself
    ├── DatasetError      a folder of images and masks that cannot be trained on
    │   ├── MissingFile       a folder, image, mask or table that is not there
    │   ├── UnreadableFile    a file that is damaged, of a kind that is not read, or with pixels that are no numbers
    │   ├── MaskMismatch      a mask of another size, with colours, or with values that mean nothing
    │   └── NothingToLearn    no foreground anywhere, or no image left on one side of the split
    ├── CheckpointError   a checkpoint that is missing, damaged, or of another recipe
    ├── FoldsMismatch     runs that do not make one cross-validation
    ├── ForeignPackage    a package to begin with whose net is not ours
    ├── ExportError       a package that would not do what the net does, or is not valid
    ├── Unwritable        a file or folder that cannot be written, for want of room or otherwise
    ├── MissingDevice     a device that is unknown, or that torch cannot use here
    ├── MissingLicense    a licence text that cannot be read
    └── Diverged          the loss is no longer a number

Every message names the file or number found, what was expected, and the remedy.
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of every error that ``training`` raises on purpose."""


class RecipeError(TrainingError):
    """The recipe cannot be read, or contradicts itself."""


class DatasetError(TrainingError):
    """The folder cannot be trained on."""


class MissingFile(DatasetError):
    """A folder, image, mask or table is not there."""


class UnreadableFile(DatasetError):
    """A file is damaged, of a kind that is not read, or holds pixels that are no numbers."""


class MaskMismatch(DatasetError):
    """A mask does not fit its image, or is no mask."""


class NothingToLearn(DatasetError):
    """The labels hold no foreground, or one side of the split holds no image."""


class CheckpointError(TrainingError):
    """The checkpoint is missing, damaged, or belongs to another recipe."""


class ForeignPackage(TrainingError):
    """The package's net is not the U-Net that is trained here."""


class ExportError(TrainingError):
    """The exported package does not do what the net does, or is not valid."""


class Unwritable(TrainingError):
    """A file or folder cannot be written: the disk is full or read-only, or something else lies there."""


class FoldsMismatch(TrainingError):
    """Runs are of other recipes or images, or share images, and do not make one cross-validation."""


class MissingDevice(TrainingError):
    """The device is unknown, or torch cannot use it here."""


class MissingLicense(TrainingError):
    """The licence text cannot be read."""


class Diverged(TrainingError):
    """The loss is no longer a finite number."""
