"""Exit with 0 if authproxy responds to a health check.

AUTHPROXY_HEALTH_URL is the URL, by default that of ``ping_path`` on the default port.
"""

import os
import ssl
import sys
import urllib.request

TIMEOUT = 2.5  # seconds
url = os.environ.get("AUTHPROXY_HEALTH_URL", "http://127.0.0.1:4180/ping")
# The certificate is that of the public name; no credentials are sent.
context = ssl._create_unverified_context()
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
)
try:
    with opener.open(url, timeout=TIMEOUT):
        sys.exit(0)
except (OSError, ValueError) as error:
    sys.exit(f"{url}: {error}")
