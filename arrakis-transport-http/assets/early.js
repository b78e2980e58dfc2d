// Runs before the page is shown. The reader's zone goes into a cookie, so that the server writes times in it.
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.includes(`arrakis-zone=${zone}`)) {
    document.cookie = `arrakis-zone=${zone}; path=/; max-age=31536000; samesite=strict`;
  }
  document.documentElement.classList.add('scripted');
})();
