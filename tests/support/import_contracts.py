"""An import-linter contract that allows only listed external packages."""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AllowedExternalContract(Contract):
    """Check that a package imports only *allowed_modules* besides its own project.

    The library's ``forbidden`` contract lists what must not be imported. This is the
    stricter opposite: a module that is on no list is a violation.
    *allowed_imports* permits single imports, written ``importer -> imported``.
    """

    type_name = "allowed_external"

    source_package = fields.StringField()
    allowed_modules = fields.SetField(subfield=fields.StringField())
    allowed_imports = fields.SetField(
        subfield=fields.ImportExpressionField(), required=False, default=set()
    )

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Return the external imports that are not allowed, sorted by importer."""
        package = str(self.source_package)
        excepted = {
            (str(item.importer), str(item.imported)) for item in self.allowed_imports
        }
        violations = sorted(
            (importer, imported)
            for importer in {package} | graph.find_descendants(package)
            for imported in graph.find_modules_directly_imported_by(importer)
            if graph.is_module_squashed(imported)
            and imported not in self.allowed_modules
            and (importer, imported) not in excepted
        )
        return ContractCheck(kept=not violations, metadata={"violations": violations})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each violation."""
        violations: list[tuple[str, str]] = check.metadata["violations"]
        for importer, imported in violations:
            output.print_error(f"{importer} imports {imported}", bold=False)
