#!/bin/sh
# Builds three images with `docker build` of Debian's packages: a web server with the clients of both others, redis and
# postgres. They are called REPOSITORY/web:1 and so on.
#   images.sh FOLDER PACKAGES REPOSITORY
# FOLDER is where their contexts are made; PACKAGES is where Debian's packages are unpacked.
set -eu
folder=$1 packages=$2 repository=$3
loader=$(ls "$packages"/lib*/ld-linux-*.so.* | head -n 1)
libraries=$(find "$packages" -name '*-linux-gnu' -type d | tr '\n' ':')

# take PROGRAM…: copies programs, and the libraries that they are linked with, to where they are in their packages.
take() {
    for program; do
        for file in "$packages$program" $("$loader" --library-path "$libraries" --list "$packages$program" | grep -o "$packages/[^ ]*"); do
            place=$root${file#"$packages"}
            mkdir -p "$(dirname "$place")" && cp -L "$file" "$place"
        done
    done
    mkdir -p "$root$(dirname "${loader#"$packages"}")" && cp -L "$loader" "$root${loader#"$packages"}"
}

# context NAME: the beginnings of an image, a shell and users.
context() {
    root=$folder/$1/root
    mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/data"
    cp -L "$(command -v busybox)" "$root/bin/busybox"
    printf 'root:x:0:0:root:/:/bin/sh\npostgres:x:70:70:postgres:/data:/bin/sh\n' > "$root/etc/passwd"
    printf 'root:x:0:\npostgres:x:70:\n' > "$root/etc/group"
    printf 'FROM scratch\nCOPY root/ /\nRUN ["/bin/busybox","--install","-s","/bin"]\nRUN chmod 1777 /tmp\n' > "$folder/$1/Dockerfile"
}

programs=$(cd "$packages" && ls -d usr/lib/postgresql/*/bin | tail -n 1)
version=$(basename "$(dirname "$programs")")

context web
take /usr/bin/redis-cli "/$programs/psql"
printf 'ENV PATH=/bin:/usr/bin:/%s\nEXPOSE 80\n' "$programs" >> "$folder/web/Dockerfile"

context redis
mkdir -p "$root/usr/bin"
# The server and its tools are one program, which looks at its name.
take /usr/bin/redis-check-rdb /usr/bin/redis-cli
printf 'RUN ln -s redis-check-rdb /usr/bin/redis-server\nENV PATH=/usr/bin:/bin\nEXPOSE 6379\nVOLUME /data\n' >> "$folder/redis/Dockerfile"

context postgres
take "/$programs/postgres" "/$programs/initdb" "/$programs/psql" "/$programs/pg_isready"
mkdir -p "$root/usr/share/postgresql" "$root/usr/lib/postgresql/$version/lib"
cp -a "$packages/usr/share/postgresql/$version" "$root/usr/share/postgresql/"
cp -a "$packages/usr/share/zoneinfo" "$root/usr/share/"
find "$packages/usr/lib/postgresql/$version/lib" -maxdepth 1 -name '*.so' ! -name 'llvm*' -exec cp {} "$root/usr/lib/postgresql/$version/lib/" \;
printf 'ENV PATH=/bin:/%s\nRUN chown postgres /data\nEXPOSE 5432\nUSER postgres\nVOLUME /data\n' "$programs" >> "$folder/postgres/Dockerfile"

for image in web redis postgres; do
    docker build -q -t "$repository/$image:1" "$folder/$image"
done
