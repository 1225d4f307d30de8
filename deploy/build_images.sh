#!/usr/bin/env bash
# Builds the Dockerfile's targets where no Docker is, as root, with debootstrap and buildah
# (apt-get install buildah debootstrap):
#
#   deploy/build_images.sh FOLDER serve updater night
#
# A target becomes a root file system, FOLDER/<target>, and its settings, FOLDER/<target>.json (OCIv1.config). Debian's
# Python stands in for BASE. All that is written lies in FOLDER, and FOLDER/base is used again. One run at a time works
# in a folder.
set -euo pipefail
folder=$(realpath --canonicalize-missing "${1:?name a folder and the targets}")
shift
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
suite=bookworm # whose python3 is 3.11
buildah=(buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs)
mkdir -p "$folder"
exec 9>>"$folder/lock"
flock --nonblock 9 || { echo "another run builds in $folder: waiting for its end" >&2; flock 9; }
trap 'rm -rf "$folder/storage" "$folder/run" "$folder/from-here"' EXIT
mkdir -p "$folder/from-here"

if [ ! -e "$folder/base" ]; then
    # shellcheck disable=SC2016 # the names are apt's, not the shell's
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
        awk -v suite=$suite '$2 == suite { print $1; exit }')
    [ -n "$mirror" ] || { echo "apt has no mirror of Debian $suite" >&2; exit 1; }
    rm -rf "$folder/unfinished"
    debootstrap --variant=minbase --include=python3,python3-pip $suite "$folder/unfinished" "$mirror" >"$folder/base.log"
    rm -rf "$folder"/unfinished/{dev,proc,var/cache/apt,var/lib/apt/lists}/* \
        "$folder"/unfinished/etc/{hostname,resolv.conf} "$folder"/unfinished/usr/lib/python3*/EXTERNALLY-MANAGED
    printf 'Dir::Cache { %s ""; %s ""; };\n' pkgcache srcpkgcache >"$folder/unfinished/etc/apt/apt.conf.d/no-cache"
    ln -s python3 "$folder/unfinished/usr/bin/python"
    mv "$folder/unfinished" "$folder/base"
fi
printf 'FROM scratch\nADD . /\n' |
    "${buildah[@]}" build --quiet --isolation chroot --tag base --file - "$folder/base" >/dev/null

# Where this machine installs from and whom it trusts counts for the build, and gets into no image.
certificates=/etc/ssl/certs/ca-certificates.crt
index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}}
printf '[global]\ncert = %s\n%s\n' $certificates "${index:+index-url = $index}" >"$folder/from-here/pip.conf"
printf 'system-certs = true\n%s\n' "${index:+index-url = \"$index\"}" >"$folder/from-here/uv.toml"

for target in "$@"; do
    "${buildah[@]}" build --isolation chroot --build-arg BASE=localhost/base --target "$target" --tag "$target" \
        --volume "$folder/from-here/pip.conf:/etc/pip.conf:ro" --volume "$folder/from-here:/etc/uv:ro" \
        --volume "$certificates:$certificates:ro" "$source"
    "${buildah[@]}" inspect --type image "$target" >"$folder/$target.json"
    container=$("${buildah[@]}" from "localhost/$target")
    rm -rf "${folder:?}/$target"
    mv "$("${buildah[@]}" mount "$container")" "$folder/$target"
    echo "$target: $(du --summarize --block-size=MB "$folder/$target" | cut -f1), $(du -s --block-size=MB "$folder/$target/opt" | cut -f1) of it ours"
done
