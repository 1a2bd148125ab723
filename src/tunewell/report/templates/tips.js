(function () {
  var root = document.documentElement, tip = document.getElementById("tip");
  document.getElementById("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  function show(event) {
    var mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (!mark) { tip.style.display = "none"; return; }
    var box = mark.getBoundingClientRect();
    tip.textContent = mark.dataset.tip; tip.style.display = "block";
    tip.style.left = Math.max(8, Math.min(innerWidth - tip.offsetWidth - 8, box.left + box.width / 2 - tip.offsetWidth / 2)) + "px";
    tip.style.top = (box.top > 50 ? box.top - tip.offsetHeight - 8 : box.bottom + 8) + "px";
  }
  document.addEventListener("mouseover", show); document.addEventListener("focusin", show);
  addEventListener("scroll", function () { tip.style.display = "none"; }, { passive: true });
  addEventListener("beforeprint", function () { document.querySelectorAll("details").forEach(function (d) { d.open = true; }); });
})();
