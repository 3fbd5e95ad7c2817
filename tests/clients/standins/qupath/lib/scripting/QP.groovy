package qupath.lib.scripting

import qupath.lib.objects.PathObject

/** Stand-in: one open image, its objects, and which of them are selected. */
class QP {
    static def server
    static PathObject root = new PathObject()
    static Collection<PathObject> selected = []
    static int updates = 0

    static def getCurrentServer() { server }

    static Collection<PathObject> getSelectedObjects() { selected }

    static Map getCurrentHierarchy() { [rootObject: root] }

    static void fireHierarchyUpdate() { updates++ }
}
