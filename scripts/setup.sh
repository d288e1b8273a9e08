#!/usr/bin/env bash
# Installs what is missing for one purpose, and nothing when all is there:
#     scripts/setup.sh build|test|lint|bench|fuzz
# Debian packages come from apt (as root, or through sudo); Rust comes from rustup, into the user's home;
# cargo tools are built into target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CARGO_BIN="${CARGO_HOME:-$HOME/.cargo}/bin"
export PATH="$PWD/target/tools/bin:$CARGO_BIN:$PATH"
RUST=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
readonly RUST
readonly CARGO_DENY=0.20.2 CARGO_FUZZ=0.13.2

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# at_least HAVE WANTED: compares versions.
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# apt_install PACKAGE…: installs those that are missing.
apt_install() {
    local missing=() package
    if ! command -v apt-get >/dev/null; then
        say "this is not Debian: please see to the equivalent of: $*"
        return
    fi
    for package; do
        [[ $(dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null) == installed* ]] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        fail "not root and no sudo; please have installed: apt-get install ${missing[*]}"
    fi
    say "apt-get install ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The compiler that rust-toolchain.toml names, or a later one that is not rustup's.
install_rust() {
    local have
    have=$(cargo --version 2>/dev/null | cut -d' ' -f2) || have=
    if [ -n "$have" ] && at_least "$have" "$RUST"; then
        return
    fi
    if ! command -v rustup >/dev/null; then
        install_rustup
    fi
    say "installing Rust $RUST"
    rustup --quiet toolchain install "$RUST" --profile minimal --component rustfmt --component clippy >&2
    have=$(cargo --version | cut -d' ' -f2)
    at_least "$have" "$RUST" || fail "cargo is $have, Rust $RUST is needed: put $CARGO_BIN first in PATH"
}

# Debian 12 has Rust 1.63 and no rustup, so the official installer is taken and its checksum compared.
install_rustup() {
    local target url folder
    apt_install ca-certificates curl
    case $(uname -m) in
        x86_64 | aarch64) target=$(uname -m)-unknown-linux-gnu ;;
        *) fail "no known installer for $(uname -m): install Rust $RUST from https://rustup.rs and come back" ;;
    esac
    url=${RUSTUP_UPDATE_ROOT:-https://static.rust-lang.org/rustup}/dist/$target/rustup-init
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$folder'" EXIT
    say "fetching $url"
    curl --proto '=https' --fail --silent --show-error --location --output "$folder/rustup-init" "$url" \
        --output "$folder/sum" "$url.sha256" ||
        fail "cannot fetch it: install Rust $RUST from https://rustup.rs and come back"
    (cd "$folder" && printf '%s  rustup-init\n' "$(cut -d' ' -f1 sum)" | sha256sum --check --quiet) ||
        fail "the installer does not match its checksum"
    chmod +x "$folder/rustup-init"
    RUSTUP_INIT_SKIP_PATH_CHECK=yes "$folder/rustup-init" -y --quiet --no-modify-path \
        --profile minimal --default-toolchain none >/dev/null
    say "Rust is in $CARGO_BIN; for your own shell: . \"${CARGO_BIN%/bin}/env\""
}

# cargo_install TOOL VERSION [FLAG…]
cargo_install() {
    local tool=$1 version=$2
    shift 2
    if at_least "$("$tool" --version 2>/dev/null | cut -d' ' -f2)" "$version"; then
        return
    fi
    say "building $tool $version"
    cargo install --quiet --locked --root target/tools --target-dir target/tools/build "$@" "$tool@$version"
    rm -rf target/tools/build
}

build() {
    command -v cc >/dev/null || apt_install gcc libc6-dev
    install_rust
}

peers() {
    apt_install ffmpeg gstreamer1.0-tools gstreamer1.0-plugins-{base,good,bad} multicat srt-tools \
        nginx libnginx-mod-rtmp python3-gi gir1.2-gst-rtsp-server-1.0 vlc-bin vlc-plugin-{base,access-extra} obs-studio xvfb \
        iproute2 ethtool nftables strace jq curl procps
    # Its sister over GnuTLS does as well, and the two exclude each other.
    [ -e /usr/include/srt/srt.h ] || apt_install gcc libc6-dev libsrt-openssl-dev
}

case ${1-} in
    build) build ;;
    test | bench) build && peers ;;
    # Unoptimised: it runs for a second, and an optimised build takes many times longer than this.
    lint) build && CARGO_PROFILE_DEV_DEBUG=0 cargo_install cargo-deny "$CARGO_DENY" --debug ;;
    fuzz) build && apt_install g++ && cargo_install cargo-fuzz "$CARGO_FUZZ" ;;
    *) fail "usage: scripts/setup.sh build|test|lint|bench|fuzz" ;;
esac
