"""Jobs: segmentations whose answer is fetched later, from any replica that shares their folder."""
