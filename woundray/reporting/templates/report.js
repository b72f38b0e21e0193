// Tabs by the pattern of the ARIA guide: arrows, Home and End move; without this script every section is shown.
const tabs = [...document.querySelectorAll('[role="tab"]')];
const panels = tabs.map((tab) => document.getElementById(tab.getAttribute("aria-controls")));

function select(number, focus) {
  tabs.forEach((tab, index) => {
    tab.setAttribute("aria-selected", String(index === number));
    tab.tabIndex = index === number ? 0 : -1;
    panels[index].hidden = index !== number;
  });
  if (focus) tabs[number].focus();
}

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => select(index, false));
  tab.addEventListener("keydown", (event) => {
    const places = { ArrowRight: index + 1, ArrowLeft: index - 1 + tabs.length, Home: 0, End: tabs.length - 1 };
    if (!(event.key in places)) return;
    event.preventDefault();
    select(places[event.key] % tabs.length, true);
  });
});
if (tabs.length) {
  document.querySelector(".tabs").hidden = false;
  select(0, false);
}

for (const slider of document.querySelectorAll("input[data-stack]")) {
  const pictures = [...document.querySelectorAll(`#${slider.dataset.stack} img`)];
  const label = document.getElementById(slider.getAttribute("aria-describedby"));
  const show = () => {
    pictures.forEach((picture, index) => picture.classList.toggle("shown", index === Number(slider.value)));
    label.textContent = pictures[slider.value].alt;
    slider.setAttribute("aria-valuetext", pictures[slider.value].alt);
  };
  slider.addEventListener("input", show);
  show();
}
