#!/bin/sh
# Brings an application up with docker-compose and takes it down: a web server that waits for a healthy redis and a
# healthy postgres. Their images are built by `docker build` of Debian's packages, pushed to a registry, removed, and
# pulled from there by compose.
#   compose.sh FOLDER DOCKER-COMPOSE CLIENTS PACKAGES REGISTRY
# PACKAGES is where Debian's packages are unpacked, REGISTRY an address of a registry without TLS.
set -eu
folder=$1 compose=$2 clients=$3 packages=$4 registry=$5
export COMPOSE_PROJECT_NAME=shop REGISTRY="$registry"
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

context web
printf 'ENV PATH=/bin\nEXPOSE 80\n' >> "$folder/web/Dockerfile"

context redis
mkdir -p "$root/usr/bin"
# The server and its tools are one program, which looks at its name.
take /usr/bin/redis-check-rdb /usr/bin/redis-cli
printf 'RUN ln -s redis-check-rdb /usr/bin/redis-server\nENV PATH=/usr/bin:/bin\nEXPOSE 6379\nVOLUME /data\n' >> "$folder/redis/Dockerfile"

context postgres
programs=$(cd "$packages" && ls -d usr/lib/postgresql/*/bin | tail -n 1)
version=$(basename "$(dirname "$programs")")
take "/$programs/postgres" "/$programs/initdb" "/$programs/psql" "/$programs/pg_isready"
mkdir -p "$root/usr/share/postgresql" "$root/usr/lib/postgresql/$version/lib"
cp -a "$packages/usr/share/postgresql/$version" "$root/usr/share/postgresql/"
cp -a "$packages/usr/share/zoneinfo" "$root/usr/share/"
find "$packages/usr/lib/postgresql/$version/lib" -maxdepth 1 -name '*.so' ! -name 'llvm*' -exec cp {} "$root/usr/lib/postgresql/$version/lib/" \;
printf 'ENV PATH=/bin:/%s\nRUN chown postgres /data\nEXPOSE 5432\nUSER postgres\nVOLUME /data\n' "$programs" >> "$folder/postgres/Dockerfile"

cp "$clients/docker-compose.yml" "$folder/docker-compose.yml"
cd "$folder"
for image in web redis postgres; do
    docker build -q -t "$registry/shop/$image" "$image"
    docker push -q "$registry/shop/$image"
    docker rmi "$registry/shop/$image" > /dev/null
done
docker image prune -f > /dev/null

$compose config -q
$compose pull -q
$compose up -d
# The web server was started last, since it waits for the others' health, and asked both before it served.
seen=$($compose exec -T web cat /tmp/seen)
echo "the web server saw: $seen"
test "$seen" = "+PONG accepting"
test "$(docker inspect -f '{{.State.Health.Status}}' shop_cache_1)" = healthy
test "$(curl --noproxy '*' -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:18060/index.html)" = shop
$compose port web 80 | grep -q '127.0.0.1:18060'
$compose top cache | grep -q redis
$compose exec -T cache redis-cli set kept yes
$compose exec -T cache redis-cli save
$compose exec -T database psql -U postgres -h 127.0.0.1 -qc 'create table t (n int); insert into t values (42)' postgres
$compose ps | grep -q 'shop_web_1'
$compose ps --services --filter status=running | sort | tr '\n' ' ' | grep -q '^cache database web worker $'
$compose logs --no-color database | grep -q 'ready to accept connections'
$compose pause cache
test "$(docker inspect -f '{{.State.Status}}' shop_cache_1)" = paused
$compose unpause cache
# All but the volumes is made anew, and what the volumes hold is there again.
$compose up -d --force-recreate --renew-anon-volumes
test "$($compose exec -T database psql -U postgres -h 127.0.0.1 -Atc 'select n from t' postgres)" = 42
test "$($compose exec -T cache redis-cli get kept)" = yes
test "$($compose run --rm -T --no-deps cache redis-cli -h cache get kept)" = yes
$compose restart -t 5 web
$compose up -d --scale worker=2
test "$(docker ps -q --filter label=com.docker.compose.service=worker | wc -l)" = 2
$compose stop -t 5
test -z "$($compose ps --services --filter status=running)"
$compose down -v --rmi all
test -z "$(docker ps -aq --filter label=com.docker.compose.project=shop)"
test -z "$(docker volume ls -q --filter label=com.docker.compose.project=shop)"
test -z "$(docker network ls -q --filter label=com.docker.compose.project=shop)"
