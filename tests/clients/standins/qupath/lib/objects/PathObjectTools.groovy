package qupath.lib.objects

import qupath.lib.regions.ImagePlane

/** Stand-in of QuPath's class. */
class PathObjectTools {
    static PathObject updatePlane(PathObject object, ImagePlane plane, boolean copyMeasurements, boolean createNewIDs) {
        new PathObject(kind: object.kind, name: object.name, roi: new PathRoi(shape: object.roi.shape, z: plane.z, t: plane.t))
    }
}
