package qupath.lib.regions

import groovy.transform.Immutable

/** Stand-in of QuPath's class. */
@Immutable
class ImagePlane {
    int z
    int t

    static ImagePlane getPlane(int z, int t) { new ImagePlane(z, t) }
}
