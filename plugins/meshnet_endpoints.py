"""`mesh:` endpoint strings for `clientFromString` and `serverFromString`."""

from meshnet.endpoints import MeshClientParser, MeshServerParser

mesh_client = MeshClientParser()
mesh_server = MeshServerParser()
