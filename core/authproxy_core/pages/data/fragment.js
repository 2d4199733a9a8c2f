(function () {
  "use strict";
  if (!location.hash) return;
  var links = document.querySelectorAll("a[data-rd]");
  for (var i = 0; i < links.length; i++) {
    var url = new URL(links[i].href);
    var rd = url.searchParams.get("rd") || "/";
    url.searchParams.set("rd", rd.split("#")[0] + location.hash);
    links[i].href = url.href;
  }
  var fields = document.querySelectorAll('input[name="rd"]');
  for (var j = 0; j < fields.length; j++) {
    fields[j].value = fields[j].value.split("#")[0] + location.hash;
  }
})();
