#!/usr/bin/env bash
# Makes sure that there is a Java for Spark: finds one, installs one, or says what to type.
set -euo pipefail
minimum=17

java_is_new_enough() {
    local java=${JAVA_HOME:+$JAVA_HOME/bin/}java version
    command -v "$java" >/dev/null || return 1
    # macOS has a java that only tells where to get one, and fails.
    version=$("$java" -version 2>&1) || return 1
    version=$(sed -n 's/.*version "\([0-9]*\).*/\1/p' <<<"$version" | head -n 1)
    [ "${version:-0}" -ge "$minimum" ]
}

java_is_new_enough && exit 0
if [ -n "${JAVA_HOME:-}" ]; then
    echo "JAVA_HOME is $JAVA_HOME, which is no Java $minimum or newer. Unset it, or set it to one." >&2
    exit 1
fi

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
if command -v apt-get >/dev/null; then
    install=("${as_root[@]}" apt-get install -y --no-install-recommends "openjdk-$minimum-jre-headless")
    refresh=("${as_root[@]}" apt-get update)
elif command -v dnf >/dev/null; then
    install=("${as_root[@]}" dnf install -y "java-$minimum-openjdk-headless")
    refresh=(true)
elif command -v brew >/dev/null; then
    install=(brew install "openjdk@$minimum")
    refresh=(true)
else
    echo "Spark needs Java $minimum or newer, and there is none. Install a JRE, and set JAVA_HOME if it is not on the PATH." >&2
    exit 1
fi

echo "Spark needs Java $minimum or newer. Installing one: ${install[*]}"
if "${refresh[@]}" >/dev/null && "${install[@]}" >/dev/null && java_is_new_enough; then
    exit 0
fi
echo "That did not work. Type this, then start again: ${install[*]//-n/}" >&2
exit 1
