package qupath.lib.regions

import groovy.transform.Immutable

/** Stand-in of QuPath's class: x, y, width and height in pixels of the whole image. */
@Immutable
class RegionRequest {
    String path
    double downsample
    int x
    int y
    int width
    int height
    int z
    int t

    static RegionRequest createInstance(String path, double downsample, int x, int y, int width, int height, int z, int t) {
        new RegionRequest(path, downsample, x, y, width, height, z, t)
    }
}
