package qupath.lib.io

import groovy.json.JsonSlurper

/** Stand-in: Groovy's JSON in place of Gson. */
class GsonTools {
    static GsonTools getInstance() { new GsonTools() }

    Object fromJson(String text, Class<?> kind) { new JsonSlurper().parseText(text).asType(kind) }
}
