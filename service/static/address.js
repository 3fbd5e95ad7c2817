"use strict";
// An address that holds a key (http://any:KEY@host/) opens a page from which no request can be made. The browser knows the
// key by then, so the page is opened anew without it in the address.

try {
  new Request("");
} catch {
  location.replace(location.origin + location.pathname + location.search + location.hash);
}
