package qupath.lib.objects

/** Stand-in of QuPath's class, and of its ROI. */
class PathObject {
    String kind = 'root'
    String name
    PathRoi roi
    List<PathObject> childObjects = []

    boolean isDetection() { kind == 'detection' }

    boolean isAnnotation() { kind == 'annotation' }

    boolean hasROI() { roi != null }

    PathRoi getROI() { roi }

    void addChildObjects(Collection<PathObject> added) { childObjects.addAll(added) }

    void removeChildObjects(Collection<PathObject> removed) { childObjects.removeAll(removed) }

    String toString() { name ?: kind }
}
