// Segments the active image with a U-Net service, for ImageJ 1.53 or later and Fiji.
//
// By hand: Plugins > Macros > Run..., choose this file, fill in the dialog. From another macro or a command line:
//
//   runMacro("/path/segment_unet.ijm", "url=http://127.0.0.1:8000 output=labels rois=true");
//   imagej -b segment_unet.ijm "image=[/data/my cells.tif] save=/data/labels.tif"
//
// url      address of the service; https://user:key@host where it   http://127.0.0.1:8000
//          wants them (%40 for an @ in them)
// image    file to open first                                       the active image
// output   labels (numbered objects), mask, or probabilities        labels
// model    name or name@version                                     the service's default
// threshold, min_area, min_score, channel                           the model's own
// axes     ZYX, CYX...: what the planes of a stack are               what the image says
// link     0.25: objects of neighbouring planes of a stack that      each plane is
//          overlap so much, at least, have one number (labels)       numbered by itself
// scale    0.5 where objects are twice as large as the model knows   1
// pixel_size  micrometres, or height,width                          what the image says
// timeout  seconds until the answer is of no use any more           the service's
// respond_async  true: as a job, which is asked for until done; for  false
//          images that take longer than a proxy waits
// mirror   true: mean of eight mirrored views, eight times the time false
// rois     true: outlines into the ROI Manager too                  false
// save     file for the result, as TIFF; ROIs beside it as .zip     not saved
//
// Values with blanks stand in square brackets. Needs curl, which Windows 10, macOS and Linux have.

requires("1.53");

// what the functions below see too
var SILENCE_S = 600; // twice what the service takes at most unless told otherwise (UNET_DEADLINE_S, 300)
var PAUSES_S = 120; // of a busy service that says when to ask again, together
var PATIENCE_S = 600; // from the first time it is asked to the last
var arguments = "";
var url = "";
var output = "";
var model = "";
var threshold = "";
var minArea = "";
var minScore = "";
var link = "";
var channel = "";
var axes = "";
var mirror = "";
var scale = "";
var pixelSize = "";
var timeout = "";
var respondAsync = "";
var sent = "";
var headers = "";

arguments = getArgument();
readOptions();
url = option("url", call("ij.Prefs.get", "unet.url", "http://127.0.0.1:8000"));
image = option("image", "");
output = option("output", "labels");
model = option("model", "");
threshold = option("threshold", "");
minArea = option("min_area", "");
minScore = option("min_score", "");
link = option("link", "");
channel = option("channel", "");
axes = option("axes", "");
mirror = option("mirror", "");
mirrored = isTrue("mirror");
scale = option("scale", "");
pixelSize = option("pixel_size", "");
timeout = option("timeout", "");
respondAsync = option("respond_async", "");
rois = isTrue("rois");
target = option("save", "");
folder = File.getDirectory(target);
if (folder != "" && !File.isDirectory(folder)) {
    exit("save is '" + target + "', which cannot be written; name a file in a folder that exists");
}

if (image != "") {
    open(image);
}
if (nImages == 0) {
    exit("No image is open. Open one, or name a file: image=[/path/cells.tif]");
}
if (arguments == "") {
    Dialog.create("Segment with U-Net");
    Dialog.addString("Service", url, 30);
    models = modelsAt(url);
    if (models.length > 1) {
        Dialog.addChoice("Model", models);
    } else {
        Dialog.addString("Model (empty: the default)", model, 30);
    }
    Dialog.addChoice("Result", newArray("labels", "mask", "probabilities"), output);
    Dialog.addString("Threshold (empty: the model's)", threshold, 8);
    Dialog.addString("Smallest object, px (empty: the model's)", minArea, 8);
    Dialog.addString("Least score of an object, 0 to 1 (empty: the model's)", minScore, 8);
    Dialog.addString("Overlap that makes objects of a stack's planes one, 0 to 1 (empty: none)", link, 8);
    Dialog.addString("Channel, number from 0 or name (empty: all)", channel, 8);
    Dialog.addString("Scale for the model (empty: 1)", scale, 8);
    Dialog.addString("Pixel size, um (empty: as in the image)", pixelSize, 8);
    Dialog.addString("Seconds to wait at most (empty: the service's)", timeout, 8);
    Dialog.addCheckbox("Outlines into the ROI Manager", rois);
    Dialog.addCheckbox("Mean of mirrored views (eight times the time)", mirrored);
    Dialog.addCheckbox("Job (for what takes longer than a proxy waits)", false);
    Dialog.show();
    url = Dialog.getString();
    if (models.length > 1) {
        model = Dialog.getChoice();
        if (model == models[0]) {
            model = "";
        }
    } else {
        model = Dialog.getString();
    }
    output = Dialog.getChoice();
    threshold = Dialog.getString();
    minArea = Dialog.getString();
    minScore = Dialog.getString();
    link = Dialog.getString();
    channel = Dialog.getString();
    scale = Dialog.getString();
    pixelSize = Dialog.getString();
    timeout = Dialog.getString();
    rois = Dialog.getCheckbox();
    if (Dialog.getCheckbox()) {
        mirror = "true";
    }
    if (Dialog.getCheckbox()) {
        respondAsync = "true";
    }
    call("ij.Prefs.set", "unet.url", url);
}
while (endsWith(url, "/")) {
    url = substring(url, 0, lengthOf(url) - 1);
}
if (rois && output == "probabilities") {
    exit("Probabilities have no outlines: choose labels or mask, or leave the ROIs out.");
}

source = getImageID();
title = File.getNameWithoutExtension(getTitle());
getVoxelSize(width, height, depth, unit);
interval = Stack.getFrameInterval();

temporary = getDirectory("temp");
if (!endsWith(temporary, File.separator)) {
    temporary = temporary + File.separator;
}
temporary = temporary + "unet-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
sent = temporary + "-image.tif";
headers = temporary + "-headers.txt";
labels = temporary + "-" + output + ".tif";
outlines = temporary + "-rois.zip";

// Saving would rename the image and forget where it came from, so a copy is saved, whole even where a part is selected.
batch = is("Batch Mode"); // of a macro that calls this one: left as it is
setBatchMode(true);
selected = selectionType() != -1;
run("Select None");
run("Duplicate...", "title=unet-copy duplicate");
saveAs("Tiff", sent);
close();
selectImage(source);
if (selected) {
    run("Restore Selection");
}

ask("tiff", labels);
if (rois) {
    ask("rois", outlines);
}
clean();

open(labels);
if (getImageID() == source) { // what is saved and renamed below would be the image itself
    exit("ImageJ cannot open the result: images above 16384 x 16384 pixels have one in tiles.\n" +
        "It is kept as " + labels + "; open it with Bio-Formats or QuPath.");
}
deleted = File.delete(labels);
rename(title + "-" + output);
if (pixelSize == "") { // the service knows micrometres; this keeps other units and the depth too
    setVoxelSize(width, height, depth, unit);
}
if (nSlices > 1) {
    Stack.setFrameInterval(interval);
}
if (output == "labels") {
    run("3-3-2 RGB"); // neighbours in number differ in colour
    setMinAndMax(0, 255);
}
if (!batch) {
    setBatchMode("exit and display");
}
if (target != "") {
    saveAs("Tiff", target);
}
if (rois) {
    roiManager("open", outlines);
    roiManager("show all without labels");
    if (target != "") {
        File.copy(outlines, File.getDirectory(target) + File.getNameWithoutExtension(target) + ".zip");
    }
    deleted = File.delete(outlines);
}

// One answer of the service in a file, or the end of this macro with the reason.
function ask(format, path) {
    query = "?output=" + output + "&format=" + format;
    query = query + given("model", model) + given("threshold", threshold) + given("min_area", minArea);
    query = query + given("min_score", minScore) + given("link", link) + given("channel", channel) + given("axes", axes);
    query = query + given("mirror", mirror) + given("scale", scale) + given("pixel_size", pixelSize);
    query = query + given("timeout", timeout) + given("respond_async", respondAsync);
    said = insist("/segment" + query, "--data-binary", "@" + sent, path);
    times = 1;
    while (said == "202") {
        job = idIn(File.openAsString(path));
        said = "409"; // not done
        while (said == "409") {
            said = insist("/jobs/" + job + "/result?wait=50", "--request", "GET", path);
            if (said == "409") {
                wait(1000);
            }
        }
        if (hasLostItsReplica(said, path) && times < 3) { // another may be luckier
            times++;
            said = insist("/segment" + query, "--data-binary", "@" + sent, path);
        }
    }
    if (said == "200") {
        if (indexOf(toLowerCase(File.openAsString(headers)), "x-unet-receipt:") >= 0) {
            return;
        }
    }
    clean();
    reason = said;
    if (said == "200") {
        reason = "What answers at " + shown(url) + " is another server, or a page to log in: give the address of the service itself.";
        deleted = File.delete(path);
    } else if (brokeOff(said)) {
        reason = "The answer of " + shown(url) + " broke off 4 times; see the service's log, and try again:\n" + said;
        deleted = File.delete(path);
    } else if (File.exists(path)) {
        reason = detail(said, File.openAsString(path));
        deleted = File.delete(path);
    } else if (startsWith(said, "Cannot run program")) {
        reason = "curl was not found: install it, or put it on the PATH.";
    } else if (endsWith(said, "000")) {
        reason = "No service answers at " + shown(url) + ": " + String.trim(substring(said, 0, lengthOf(said) - 3));
    }
    exit("The U-Net service gives no result.\n" + reason);
}

// What exchange says in the end: asked again as long as a busy service says when, and where an answer broke off, three
// times at most.
function insist(address, flag, value, path) {
    begun = getTime();
    waited = 0;
    broken = 0;
    refused = 0;
    ofJob = startsWith(address, "/jobs/");
    reached = ofJob; // who has a job has answered
    again = true;
    while (again) {
        said = exchange(address, flag, value, path);
        if (brokeOff(said)) {
            broken++;
            pause = 0.25 * pow(2, broken); // half a second, then twice as long each time
            reached = true;
            if (broken == 4) {
                again = false;
            }
        } else {
            pause = retryAfter(said);
            if (ofJob && hasLostItsReplica(said, path)) {
                pause = 0;
            }
            if (matches(said, "[0-9]+") && said != "000") {
                reached = true;
            } else if (reached && matches(said, "(?s).*curl: \\(7\\).*000")) { // it may be about to be replaced
                refused++;
                pause = 0.25 * pow(2, refused);
            }
            waited += pause;
            late = (getTime() - begun) / 1000 + pause > PATIENCE_S;
            if (pause == 0 || waited > PAUSES_S || late) {
                again = false;
            }
        }
        if (again) {
            wait(1000 * pause);
        }
    }
    return said;
}

// The status of the answer, nothing else where all of it is in the file; what curl complains of stands before it.
function exchange(address, flag, value, path) {
    // without "Expect:" curl waits a second before it sends
    said = exec("curl", "--silent", "--show-error", "--stderr", "-", "--header", "Expect:", "--dump-header", headers,
        "--header", "Content-Type: image/tiff", flag, value, "--connect-timeout", "10", "--speed-limit", "1",
        "--speed-time", "" + SILENCE_S, "--output", path, "--write-out", "%{http_code}", url + address);
    return String.trim(said);
}

// The seconds after which a refusal asks to come again, 1 at least; 0 where there is none or it names none.
function retryAfter(said) {
    if (!matches(said, "[45][0-9][0-9]") || said == "409") {
        return 0;
    }
    text = toLowerCase(File.openAsString(headers));
    start = lastIndexOf(text, "retry-after:");
    if (start < 0) {
        return 0;
    }
    text = substring(text, start + 12);
    seconds = parseInt(String.trim(substring(text, 0, indexOf(text, "\n"))));
    if (isNaN(seconds)) {
        return 0;
    }
    return maxOf(1, seconds);
}

// Whether the connection ended before all of the answer was here: in its body, or (52, 55, 56) before its status.
function brokeOff(said) {
    if (matches(said, "(?s).+20[02]")) {
        return true;
    }
    return matches(said, "(?s).*curl: \\((52|55|56)\\).*000");
}

// Whether a job will have no result, so that it is to be sent again.
function hasLostItsReplica(said, path) {
    if (!matches(said, "[45][0-9][0-9]")) {
        return false;
    }
    if (!File.exists(path)) {
        return false;
    }
    return matches(File.openAsString(path), "(?s).*\"type\": ?\"/problems/(job-lost|draining|unknown-job)\".*");
}

// The id of a job in what the service says of it.
function idIn(json) {
    parts = split(substring(json, indexOf(json, "\"id\"") + 4), "\"");
    return parts[1];
}

// An address without user and password, as it may be shown.
function shown(address) {
    return replace(address, "^([a-zA-Z]+://)?.*@", "$1");
}

// The service's default and the names of its models, or the first alone where it does not answer at once.
function modelsAt(address) {
    while (endsWith(address, "/")) {
        address = substring(address, 0, lengthOf(address) - 1);
    }
    names = newArray("the service's default");
    said = exec("curl", "--silent", "--fail", "--connect-timeout", "2", "--max-time", "3", address + "/models");
    said = substring(said, 0, maxOf(0, indexOf(said, "\"refused\":")));
    parts = split(said, "([{]\"name\":\")");
    for (i = 1; i < parts.length; i++) {
        name = substring(parts[i], 0, indexOf(parts[i], "\""));
        start = indexOf(parts[i], "\"version\":\"") + 11;
        version = substring(parts[i], start, indexOf(parts[i], "\"", start));
        names = Array.concat(names, name + "@" + version);
    }
    return names;
}

// What an application/problem+json says to people, or what the status means where a proxy has answered.
function detail(status, json) {
    start = indexOf(json, "\"detail\":\"");
    if (start < 0) {
        wants = " wants user and password, or a key; put them into the address, as in https://user:key@host";
        wrong = " does not know the user and password, or the key, in the address";
        address = shown(url); // a string in a variable: the language takes a function here for a number
        if (status == "401" && address == url) {
            return address + wants + " (%40 for an @ in them); the operator of the service has them.";
        } else if (status == "401") {
            return address + wrong + "; compare them with what the operator of the service gave you.";
        } else if (status == "403") {
            return address + " knows who asks, and does not allow it (403); ask the operator of the service for access.";
        }
        return "The service answers " + status + ": " + json;
    }
    text = "";
    for (i = start + 10; i < lengthOf(json); i++) {
        c = substring(json, i, i + 1);
        if (c == "\"") {
            return text;
        }
        if (c == "\\") {
            i++;
            c = substring(json, i, i + 1);
            if (c == "n" || c == "r" || c == "t") {
                c = " ";
            } else if (c == "u") {
                c = fromCharCode(parseInt(substring(json, i + 1, i + 5), 16));
                i += 4;
            }
        }
        text = text + c;
    }
    return text;
}

function given(name, value) {
    if (value == "") {
        return "";
    }
    return "&" + name + "=" + encoded(value);
}

function encoded(text) {
    return call("java.net.URLEncoder.encode", text, "UTF-8");
}

// Delete what has been sent, and the headers of the last answer.
function clean() {
    deleted = File.delete(sent);
    if (File.exists(headers)) {
        deleted = File.delete(headers);
    }
}

// Whether an option is true; one that is neither true nor false ends the macro.
function isTrue(name) {
    value = option(name, "false");
    if (value == "true") {
        return true;
    }
    if (value != "false") {
        exit(name + " is '" + value + "', it should be true or false");
    }
    return false;
}

// The value of an option among the arguments.
function option(name, otherwise) {
    value = List.get(name);
    if (value == "") {
        return otherwise;
    }
    return value;
}

// Split the arguments, name=value or name=[value with blanks], into the list that option looks into.
function readOptions() {
    known = newArray("url", "image", "output", "model", "threshold", "min_area", "min_score", "channel", "axes", "link", "scale",
        "pixel_size", "timeout", "respond_async", "mirror", "rois", "save");
    List.clear();
    rest = String.trim(arguments);
    while (rest != "") {
        word = substring(rest, 0, indexOf(rest + " ", " "));
        equals = indexOf(word, "=");
        if (equals < 0) {
            exit("'" + word + "' is no option; write name=value, and name=[value] where the value has blanks");
        }
        name = substring(word, 0, equals);
        found = false;
        for (i = 0; i < known.length; i++) {
            found = found || known[i] == name;
        }
        if (!found) {
            exit("There is no option " + name + "; there are " + String.join(known, ", "));
        }
        value = substring(word, equals + 1);
        length = lengthOf(word);
        if (startsWith(value, "[")) {
            end = indexOf(rest, "]");
            if (end < 0) {
                exit("The value of " + name + " begins with [, and no ] ends it");
            }
            value = substring(rest, equals + 2, end);
            length = end + 1;
        }
        List.set(name, value);
        rest = String.trim(substring(rest, length));
    }
}
