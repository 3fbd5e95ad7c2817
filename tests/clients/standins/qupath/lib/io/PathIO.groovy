package qupath.lib.io

import groovy.json.JsonSlurper
import java.awt.geom.Path2D
import qupath.lib.objects.PathObject
import qupath.lib.objects.PathRoi

/** Stand-in: polygons of a FeatureCollection as objects on their plane. */
class PathIO {
    static List<PathObject> readObjectsFromGeoJSON(InputStream stream) {
        new JsonSlurper().parse(stream).features.collect { feature ->
            Path2D path = new Path2D.Double(Path2D.WIND_EVEN_ODD)
            def polygons = feature.geometry.coordinates
            (feature.geometry.type == 'Polygon' ? [polygons] : polygons).each { rings ->
                rings.each { ring ->
                    ring.eachWithIndex { corner, at -> at ? path.lineTo(*corner*.toDouble()) : path.moveTo(*corner*.toDouble()) }
                    path.closePath()
                }
            }
            int z = feature.geometry.plane?.z ?: 0
            int t = feature.geometry.plane?.t ?: 0
            new PathObject(kind: feature.properties.objectType, name: feature.properties.name,
                roi: new PathRoi(shape: path, z: z, t: t))
        }
    }
}
