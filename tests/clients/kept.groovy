// Runs one script after the other as `groovy` does, without a start for each: a script has classes, output and exit
// status of its own. Each line that comes in is a script and its arguments, in JSON; each that goes out is [status,
// output, errors].

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import ij.WindowManager

class Exit extends Error {
    final int status

    Exit(int status) {
        super("exit with ${status}")
        this.status = status
    }
}

int statusOf(Throwable failure) {
    for (Throwable cause = failure; cause != null; cause = cause.cause) {
        if (cause instanceof Exit) {
            return cause.status
        }
    }
    System.err.println("Caught: ${failure}")
    failure.printStackTrace()
    1
}

PrintStream answers = System.out
System.metaClass.static.exit = { int status -> throw new Exit(status) }
System.in.eachLine('UTF-8') { line ->
    List<String> asked = (List<String>) new JsonSlurper().parseText(line)
    List<ByteArrayOutputStream> said = [new ByteArrayOutputStream(), new ByteArrayOutputStream()]
    System.out = new PrintStream(said[0], true, 'UTF-8')
    System.err = new PrintStream(said[1], true, 'UTF-8')
    int status = 0
    try {
        new GroovyShell(new GroovyClassLoader(GroovySystem.classLoader)).run(new File(asked.head()), asked.tail())
    } catch (Throwable failure) {
        status = statusOf(failure)
    }
    WindowManager.IDList?.each { WindowManager.getImage(it).with { changes = false; close() } }
    answers.println(JsonOutput.toJson([status, *said*.toString('UTF-8')]))
}
